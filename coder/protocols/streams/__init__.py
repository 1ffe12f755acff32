"""What one-shot commands of agents write when asked for JSON, a record a line, as `AgentEvent`s. One file per format.

Omitted on purpose: telling of what is none of the formats' business: `reader.py` keeps what is no record.
"""
