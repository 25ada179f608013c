"""The papers' data sets, in the layout that people have on disk, and names for data sets of one's own."""
