"""What people read about movies: facts, and what a notebook shows."""
