package netstate

// LinkByIndex finds a device by its index.
func (s *State) LinkByIndex(index int) (*Link, bool) {
	for i := range s.Links {
		if s.Links[i].Index == index {
			return &s.Links[i], true
		}
	}
	return nil, false
}

// LinkByName finds a device by its name.
func (s *State) LinkByName(name string) (*Link, bool) {
	for i := range s.Links {
		if s.Links[i].Name == name {
			return &s.Links[i], true
		}
	}
	return nil, false
}

// LinkName is the name of a device, "" if there is none of that index.
func (s *State) LinkName(index int) string {
	if l, ok := s.LinkByIndex(index); ok {
		return l.Name
	}
	return ""
}
