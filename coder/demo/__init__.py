"""What `bin/up --demo` needs and nothing else uses: a model that follows a script instead of thinking."""
