"""The clockwork: every asyncio task of a node lives here. It sees the worlds only through `coder.ports`."""
