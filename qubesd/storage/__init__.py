"""Where a qube's volumes lie: the pool's protocol first, then its drivers."""
