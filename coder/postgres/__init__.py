"""PostgreSQL, the one world that holds the truth: the embedded server, connections, and one module per noun.

Nothing here decides anything: modules type and run the named statements of the `.sql` files beside them.
"""
