"""What a trained policy is put to: evaluation on held-out tasks, figures, recordings, videos, export."""
