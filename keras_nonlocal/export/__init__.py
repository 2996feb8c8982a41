"""SavedModels that serve without this package."""
