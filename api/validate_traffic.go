package api

// traffic checks how clients are led to replicas.
func (c *checker) traffic(s *ServiceSpec) {
	const headless = "is about how a virtual IP leads to replicas, and a headless service has none: remove this line, or headless"
	switch s.SessionAffinity {
	case "":
	case AffinityClientIP:
		if s.Headless {
			c.add("spec.sessionAffinity", headless)
		}
	default:
		c.add("spec.sessionAffinity", "%q is unknown: want %s, or leave it out", clip(string(s.SessionAffinity)), AffinityClientIP)
	}
	switch s.TrafficDistribution {
	case "":
	case PreferSameNode:
		if s.Headless {
			c.add("spec.trafficDistribution", headless)
		}
	default:
		c.add("spec.trafficDistribution", "%q is unknown: want %s, or leave it out", clip(string(s.TrafficDistribution)), PreferSameNode)
	}
}
