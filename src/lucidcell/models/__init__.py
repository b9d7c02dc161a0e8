"""One file per model, equations first."""
