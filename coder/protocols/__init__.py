"""Sans-IO translation: what an agent's protocol says, as `AgentEvent`s. Imports words alone; no asyncio, no files."""
