"""Pages and tables about finished runs, side by side and next to published numbers."""
