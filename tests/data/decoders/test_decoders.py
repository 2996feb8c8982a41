import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data import decoders
from keras_nonlocal.data.decoders import frame_folder


def test_auto_looks_at_the_path(tmp_path):
    assert decoders.get_decoder("auto", tmp_path) is frame_folder
    assert decoders.get_decoder("auto", str(tmp_path)) is frame_folder
    assert decoders.get_decoder("auto", tmp_path / "a.mp4") is decode


@pytest.mark.parametrize("name", decoders.DECODERS)
def test_a_name_decides(tmp_path, name):
    decoders.check_decoder(name)
    expected = decoders.DECODERS[name]
    assert decoders.get_decoder(name, tmp_path) is expected


@pytest.mark.parametrize("name", ["opencv", "", None])
def test_names_must_be_known(name):
    message = r"`decoder` must be one of \('auto', 'pyav'.* Received: decoder="
    with pytest.raises(ValueError, match=message):
        decoders.check_decoder(name)
    with pytest.raises(ValueError, match=message):
        decoders.get_decoder(name, "a.mp4")
