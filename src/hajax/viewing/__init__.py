"""Drawing: learning curves, films and scenes."""
