package upgrade

// ForgetNew allows another call of New in this process.
func ForgetNew() { only.Store(nil) }
