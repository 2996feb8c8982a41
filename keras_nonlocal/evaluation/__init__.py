"""Testing trained networks on videos."""
