"""Pictures and tables, of arrays and of a run folder."""
