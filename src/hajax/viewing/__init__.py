"""What draws: learning curves, films and scenes."""
