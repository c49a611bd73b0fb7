"""Where bundles come from: folders on disk, references to elsewhere, loading while serving."""
