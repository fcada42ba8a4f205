"""REST, asked in process: real requests to the real application over a real storage."""
