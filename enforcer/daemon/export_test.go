package daemon

// Deaf makes a daemon miss what the kernel says of other programs' changes.
func (o *Options) Deaf() { o.deaf = true }
