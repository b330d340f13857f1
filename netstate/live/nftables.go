package live

func (s *reading) nftables() {}
