// Leads an address of the time when / named feeds in its fragment to the page of these feeds.

import { isOldPlace, pageOf, readPlace } from "./place.js";

const { feeds, types } = readPlace();
if (isOldPlace()) location.replace(pageOf(feeds, types));
addEventListener("hashchange", () => isOldPlace() && location.replace(pageOf(readPlace().feeds, readPlace().types)));
