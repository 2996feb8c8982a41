"""Training on folders of videos."""
