"""Several machines as one service, driven through Ray Serve; nothing here is imported without Ray being asked for."""
