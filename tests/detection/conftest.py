"""What is run by hand is not collected: torchvision is not needed here."""

collect_ignore = ["make_golden.py"]
