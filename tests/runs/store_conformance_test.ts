import { openStore } from "../../src/runs/store/data_folder.ts";
import { MemoryStore } from "./memory_store.ts";
import { testRunStore } from "./store_conformance.ts";

testRunStore("SQLite", openStore);
testRunStore("memory", (folder) => new MemoryStore(folder));
