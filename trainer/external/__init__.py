"""Does a finished run hold on another data set, and are its probabilities right there?"""
