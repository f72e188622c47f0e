"""Lists of videos and names of classes, from files of users."""
