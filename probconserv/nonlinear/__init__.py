"""Laws g(u) = 0 that need not be linear: the law, the most probable field under it, the projection of given fields."""
