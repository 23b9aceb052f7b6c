"""Scene Localization: find in a picture what a phrase names."""
