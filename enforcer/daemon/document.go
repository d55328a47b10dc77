package daemon

// Document is what stands at the path of a policy at one time.
type Document struct {
	// Text is the whole document; of a directory, its parts put together as Run puts them, byte for byte.
	Text []byte

	source *source
}

// ReadDocument reads a policy as Run does: a regular file, or a directory whose *.json files are parts of one document. So whatever
// else reads a policy takes what Run takes.
func ReadDocument(path string) (Document, error) {
	from, err := newSource(path, false)
	if err != nil {
		return Document{}, err
	}
	text, err := from.read()
	if err != nil {
		return Document{}, err
	}
	return Document{Text: text, source: from}, nil
}

// Where says in which file of a directory an error about a database is: the line in the whole document helps nobody. Other errors, and
// those about a file, are returned as they are.
func (d Document) Where(err error) error { return d.source.where(err) }
