"""How is a finished run's model taken to other programs, and is it the same there?"""
