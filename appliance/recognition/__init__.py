"""From a frame to a decision: model packs, detection, tracks, templates, search. Shared with the base only."""
