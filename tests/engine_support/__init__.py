"""What the engine tests share: a small world around an engine, and programs for other processes."""
