"""Frame features on disk, in the place of videos, and vectors of videos."""
