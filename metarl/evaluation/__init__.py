"""What is done with a trained policy: evaluation on held-out tasks, figures, recordings, videos, export."""
