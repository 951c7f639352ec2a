"""Does a finished run's model look at the lungs, or at a shortcut?"""
