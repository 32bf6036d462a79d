"""The rendered world: scenes, captions and exact pictures of them at any resolution."""
