// Package storagetest holds the tests that every [feed.Store] and every [feed.Bus] must
// pass, and the benchmark of stores. The tests demand what the interfaces promise and
// nothing else, so that a store or a bus that passes can replace another.
//
// A store's own tests call it like this:
//
//	func TestStore(t *testing.T) {
//		storagetest.TestStore(t, func(t *testing.T) storagetest.Opener {
//			place := newPlace(t) // an empty file or database for this test alone
//			return func(t *testing.T) feed.Store { return open(t, place) }
//		})
//	}
//
// The tests of a bus do the same with TestBus. There, each call of the inner function
// joins another node to the same bus.
package storagetest
