"""From blind fingerprints to banners: who holds the same credential, and who must be told."""
