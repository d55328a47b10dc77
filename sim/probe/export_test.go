package probe

// Port is the source port that the next probe would have.
func (p *Prober) Port() uint16 { return p.port() }
