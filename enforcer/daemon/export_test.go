package daemon

// Deaf makes a daemon miss what the kernel says of other programs' changes.
func (o *Options) Deaf() { o.deaf = true }

// Unmindful makes a daemon read its policy on events alone.
func (o *Options) Unmindful() { o.unmindful = true }
