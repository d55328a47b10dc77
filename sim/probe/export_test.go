package probe

// Port is the source port that the next probe would have.
func (p *Prober) Port() (uint16, error) {
	port, err := p.port()
	p.release(port)
	return port, err
}
