// Package storagetest holds the tests that every [feed.Store] and every
// [feed.Bus] must pass. They ask for what the interfaces promise and for
// nothing else, so that a store or a bus that passes can take another's place.
//
// A store's own tests call it like this:
//
//	func TestStore(t *testing.T) {
//		storagetest.TestStore(t, func(t *testing.T) storagetest.Opener {
//			place := newPlace(t) // a file name, a database: empty, and of this test alone
//			return func(t *testing.T) feed.Store { return open(t, place) }
//		})
//	}
//
// and a bus's in the same way, where each call of the inner function joins one
// more node to the same bus.
package storagetest
