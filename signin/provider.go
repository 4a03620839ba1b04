package signin

// provider is an OpenID provider at work.
type provider struct {
	Provider
}

func (s *Service) addProviders(all []Provider) error {
	for _, c := range all {
		if err := c.Check(); err != nil {
			return err
		}
		s.providers = append(s.providers, &provider{Provider: c})
	}
	return nil
}
