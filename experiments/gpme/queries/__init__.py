"""Laws that are drawn with each query, so that no training knows them."""
