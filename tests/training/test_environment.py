import subprocess

from keras_nonlocal.training import environment


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        check=True,
        capture_output=True,
    )


def test_revision_of_a_checkout(tmp_path):
    assert environment.git_revision(tmp_path) is None
    git(tmp_path, "init")
    assert environment.git_revision(tmp_path) is None  # Nothing committed.
    (tmp_path / "code.py").write_text("a")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    found = environment.git_revision(tmp_path)
    assert len(found["revision"]) == 40 and not found["changed"]
    (tmp_path / "other.py").write_text("not known")
    assert environment.git_revision(tmp_path) == found
    (tmp_path / "code.py").write_text("b")
    assert environment.git_revision(tmp_path) == {**found, "changed": True}
    # An environment in somebody's checkout is not of it.
    (tmp_path / "site-packages").mkdir()
    assert environment.git_revision(tmp_path / "site-packages") is None


def test_without_git_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.environment()["git"] is None


def test_says_where_and_with_what():
    found = environment.environment()
    assert "cores" in found["machine"] and "keras" in found["versions"]
    assert found["devices"]
