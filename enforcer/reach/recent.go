package reach

// recent keeps what was asked for lately, and never more than twice its bound. The zero value is empty, and keeps nothing if
// the bound is 0.
type recent[V any] struct {
	bound      int
	young, old map[string]V
}

func (r *recent[V]) get(key []byte) (v V, ok bool) {
	if v, ok = r.young[string(key)]; ok {
		return v, true
	}
	if v, ok = r.old[string(key)]; ok {
		r.put(string(key), v)
	}
	return v, ok
}

// put keeps a value. When there are too many, those that were not asked for since it was so before are forgotten.
func (r *recent[V]) put(key string, v V) {
	if _, there := r.young[key]; !there && len(r.young) >= r.bound {
		r.young, r.old = nil, r.young
	}
	if r.young == nil {
		r.young = map[string]V{}
	}
	if r.bound > 0 {
		r.young[key] = v
	}
}
