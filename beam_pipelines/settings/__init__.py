"""The settings of a build, and Beam's own flags."""
