/**
 * From a recipe to what a run works on: open models, encoded samples. Everything that can be wrong with the inputs is found here,
 * before anything is on the GPU.
 *
 * @module
 */
// @ts-types="../../../types/std_path.d.ts"
import { join } from "@std/path";
import type { ModelFamily } from "../../models/family.ts";
import { InputError } from "../../base/errors.ts";
import { ChatTemplate } from "../../text/chat_template.ts";
import type { DatasetRow } from "../../text/dataset.ts";
import type { EncodedSample, EncodeReport } from "../../text/encode.ts";
import { TextTokenizer, vocabularyDifference } from "../../text/tokenizer.ts";
import { checkShapedModel, readShapeFile } from "../../formats/shape_file.ts";
import { modelIdentity } from "./identity.ts";
import { Model, type ModelOptions, type OpenedFiles, type WeightStorage } from "./models.ts";
import { trainingSets } from "../recipe/data_sets.ts";
import type { Recipe } from "../recipe/recipe.ts";
import {
  type DataAccess,
  drawnSets,
  joinedReport,
  openSampleSets,
  type SampleSets,
  type TrainingSamples,
} from "./sample_sets.ts";
import { readShapeSpace } from "./shape_space.ts";
import { selectsHead } from "./tensor_names.ts";
import { widthCutOf } from "./width_cut.ts";

/** A recipe's inputs, checked and loaded; weights are still on disk. */
export interface PreparedRun {
  readonly recipe: Recipe;
  /** The student itself, where the teacher is behind a server. */
  readonly teacher: Model;
  readonly student: Model;
  readonly tokenizer: TextTokenizer;
  readonly template: ChatTemplate | undefined;
  /** Present where teacher and student have heads of different sizes for one vocabulary: only its rows take part. */
  readonly padding?: { readonly teacher: number; readonly student: number; readonly common: number };
  /** The data, set by set. What follows is all sets together, one after another, but training sets of which nothing is drawn. */
  readonly sets: SampleSets;
  readonly train: EncodedSample[];
  readonly heldOut: EncodedSample[];
  readonly trainRows: DatasetRow[];
  readonly heldOutRows: DatasetRow[];
  readonly trainReport: EncodeReport;
  readonly heldOutReport: EncodeReport;
  /** Tokens at which generation stops. */
  readonly stopTokens: readonly number[];
  close(): void;
}

/** A tokenizer with its chat template, read from a model. */
export async function openTokenizer(
  model: Model,
): Promise<{ tokenizer: TextTokenizer; template: ChatTemplate | undefined }> {
  const files = await model.source.tokenizer();
  const { bosToken, eosTokens, vocabularySize } = model.config;
  const isFolder = model.source.kind === "huggingface";
  const file = files.sentencePieceModel ? "tokenizer.model" : "tokenizer.json";
  const where = isFolder ? join(model.path, file) : model.path;
  const tokenizer = TextTokenizer.fromJson(files.tokenizerJson, files.tokenizerConfig, where, {
    ...(bosToken === undefined ? {} : { bosTokenId: bosToken }),
    eosTokenIds: eosTokens,
  });
  if (tokenizer.vocabularySize > vocabularySize) {
    throw new InputError(
      `the tokenizer has ids up to ${
        tokenizer.vocabularySize - 1
      }, but the embedding has only ${vocabularySize} rows`,
      {
        where: model.path,
        hint: "The tokenizer belongs to another model: put the right tokenizer.json into the folder.",
      },
    );
  }
  // A folder's template may stand in tokenizer_config.json, where it is found and named as standing there.
  const jinja = isFolder ? files.originals?.get("chat_template.jinja") : files.chatTemplate;
  const template = ChatTemplate.fromConfig(files.tokenizerConfig, {
    where: model.path,
    ...(jinja === undefined ? {} : { jinja }),
    ...(isFolder ? {} : { jinjaWhere: `${model.path} (tokenizer.chat_template)` }),
  });
  return { tokenizer, template };
}

/**
 * Opens and checks everything a recipe names.
 *
 * @param begun What a checkpoint says of the run that goes on; see {@linkcode openStudent}
 * @param families Of models, beside the built-in ones
 * @param access How the data are read
 * @throws {InputError} on a model, tokenizer or dataset that does not do, or two models whose vocabularies differ
 */
export async function prepareRun(
  recipe: Recipe,
  begun?: BegunStudent,
  families: readonly ModelFamily[] = [],
  access: DataAccess = {},
): Promise<PreparedRun> {
  const { model, quantize, server } = recipe.teacher;
  // Of a teacher behind a server nothing is here: it has the student's tokenizer, and what is planned of it the student's sizes.
  let student = server ? await openStudent(recipe, begun, families) : undefined;
  let teacher = student ?? await Model.open(model, { category: "teacher weights", quantize }, families);
  let dataSets: SampleSets | undefined;
  try {
    student ??= await openStudent(recipe, begun, families);
    const { tokenizer, template } = await openTokenizer(teacher);
    const padding = recipe.student.model === "teacher" || server
      ? undefined
      : compareVocabularies(teacher, tokenizer, student, (await openTokenizer(student)).tokenizer);
    if (padding) [teacher, student] = [teacher, student].map((model) => model.withRows(padding.common));
    if (recipe.data.contextLength > Math.min(teacher.config.contextLength, student.config.contextLength)) {
      throw new InputError(
        `data.contextLength is ${recipe.data.contextLength}; the models were trained for ${teacher.config.contextLength} (teacher) and ${student.config.contextLength} (student) positions`,
        { where: "recipe", hint: "Lower data.contextLength." },
      );
    }
    const sets = await openSampleSets(
      recipe.data,
      { tokenizer, ...(template ? { template } : {}) },
      access,
    );
    dataSets = sets;
    const drawn = drawnSets(sets.train);
    const samples = drawn.flatMap((set) => set.samples);
    checkSources(recipe, samples, drawn);
    checkStreamed(recipe, drawn);
    const opened = { teacher: teacher!, student: student! };
    return {
      recipe,
      ...opened,
      tokenizer,
      template,
      ...(padding ? { padding } : {}),
      sets,
      train: samples,
      heldOut: sets.heldOut.flatMap((set) => set.samples),
      trainRows: drawn.flatMap((set) => set.rows),
      heldOutRows: sets.heldOut.flatMap((set) => set.rows),
      trainReport: joinedReport(drawn.map((set) => set.report)),
      heldOutReport: joinedReport(sets.heldOut.map((set) => set.report)),
      stopTokens: stopTokens(tokenizer, recipe.data.endToken),
      close() {
        sets.close();
        for (const source of new Set([opened.teacher.source, opened.student.source])) source.close();
      },
    };
  } catch (error) {
    dataSets?.close();
    teacher.close();
    student?.close();
    throw error;
  }
}

/** A loss that counts samples of one source has to find some. */
function checkSources(
  { objective, data }: Recipe,
  samples: readonly EncodedSample[],
  sets: readonly TrainingSamples[],
): void {
  const there = new Set(samples.flatMap(({ origin }) => origin ?? []));
  for (const { streamed } of sets) streamed?.origins.forEach((origin) => there.add(origin));
  for (const [i, { loss, source }] of objective.entries()) {
    if (source === undefined || there.has(source)) continue;
    const names = [...there].slice(0, 8).map((name) => JSON.stringify(name)).join(", ");
    throw new InputError(
      `"${loss}" counts samples of the source ${JSON.stringify(source)}, but ${
        trainingSets(data).map(({ path }) => path).join(", ")
      } has none`,
      {
        where: `recipe objective.${i}.source`,
        hint: names === ""
          ? `No row says who wrote it: add "source": ${JSON.stringify(source)} to those it is true of.`
          : `Its rows name these sources: ${names}.`,
      },
    );
  }
}

/** A cache holds a row for each token, so that samples have to be known before. */
function checkStreamed({ teacher }: Recipe, sets: readonly TrainingSamples[]): void {
  if (!teacher.cache || sets.every(({ streamed }) => !streamed)) return;
  throw new InputError(
    "a cached teacher needs all samples in memory, and the training data stay on the disk",
    {
      where: "recipe teacher.cache",
      hint: "Leave out teacher.cache, or set data.streaming: false, or data.limit.",
    },
  );
}

/** What a checkpoint says of the student that its run began with. */
export interface BegunStudent {
  /** Absent in checkpoints from before it was chosen by the file's own types. */
  readonly storage?: WeightStorage;
}

/**
 * The student of a recipe. Where its base is not a folder as it stands, its weights are those that `base/` holds. Where its head is
 * trained and was the embedding, it has one of its own.
 *
 * @param begun What a checkpoint of the run says: a run goes on with the weights that it began with
 * @param families Of models, beside the built-in ones
 */
export async function openStudent(
  { teacher, student }: Recipe,
  begun?: BegunStudent,
  families: readonly ModelFamily[] = [],
): Promise<Model> {
  const { model, layers, shape, shapes, train = [] } = student;
  const path = model === "teacher" ? teacher.model : model;
  const options = async (files: OpenedFiles): Promise<ModelOptions> => ({
    category: "student weights",
    quantize: student.quantize,
    ...(shape === undefined ? { layers } : await shapeOf(shape, path, files)),
    storage: begun ? begun.storage ?? earlierStorage(student, files) : chosenStorage(student, files),
    ...(shapes
      ? {
        shapes: await readShapeSpace(
          shapes,
          files.architecture.config,
          () => modelIdentity(files),
          path,
        ),
      }
      : {}),
    ownHead: selectsHead(train, files.architecture.family.names.head),
  });
  return await Model.open(path, options, families);
}

/** What a shape file keeps of a model. */
async function shapeOf(
  file: string,
  path: string,
  files: OpenedFiles,
): Promise<Pick<ModelOptions, "layers" | "width">> {
  const shape = await readShapeFile(file);
  checkShapedModel(shape, await modelIdentity(files), path, file);
  return {
    layers: shape.keptLayers,
    ...(shape.width ? { width: widthCutOf(shape.width, file) } : {}),
  };
}

/** A GGUF file whose matrices are f16 or quantised stands for a model in 16 bits; anything else is trained as it is. */
function chosenStorage({ dtype }: Recipe["student"], { source }: OpenedFiles): WeightStorage {
  if (dtype) return dtype;
  const wide = [...source.tensors.values()].some(({ dtype, shape }) =>
    shape.length > 1 && (dtype === "F32" || dtype === "BF16")
  );
  return source.kind === "huggingface" || wide ? "exact" : "half";
}

/** What was chosen when every student with a base of its own was one of 16 bits. */
function earlierStorage({ layers }: Recipe["student"], { source, architecture }: OpenedFiles): WeightStorage {
  const cut = layers !== undefined && layers.length < architecture.config.layers;
  return cut || source.kind === "gguf" ? "half" : "exact";
}

/** Whether a student needs a `base/` folder of its own for PEFT to load its adapter on. */
export function needsBase(student: Model): boolean {
  return student.source.kind === "gguf" || student.untied || student.isRounded || student.isNarrowed ||
    student.keptLayers.length < student.sourceLayers;
}

/** Where a text of this model ends: its end tokens, and what the recipe puts after a text. */
export function stopTokens(tokenizer: TextTokenizer, endToken: Recipe["data"]["endToken"]): number[] {
  const stop = new Set(tokenizer.eosTokens);
  if (typeof endToken === "number") stop.add(endToken);
  // A BOS in the middle begins another text, so this one is over.
  if (tokenizer.bosToken !== undefined) stop.add(tokenizer.bosToken);
  return [...stop];
}

/**
 * Losses compare rows of logits, so each id must mean the same token. Heads may have more rows than there are tokens: where one has more than
 * the other, these take no part in either, since no token stands for them.
 */
function compareVocabularies(
  teacher: Model,
  teacherTokenizer: TextTokenizer,
  student: Model,
  studentTokenizer: TextTokenizer,
): PreparedRun["padding"] {
  const difference = vocabularyDifference(teacherTokenizer, studentTokenizer);
  if (difference) {
    throw new InputError(`teacher and student have different vocabularies: ${difference}`, {
      where: student.path,
      hint:
        "Distillation over logits needs one vocabulary, with universal-logit too: positions of different " +
        "tokenisations are not paired. So choose models of one family, or cut a student from the teacher " +
        "(student: {model: teacher, layers: [...]}).",
    });
  }
  const [t, s] = [teacher.config.vocabularySize, student.config.vocabularySize];
  return t === s ? undefined : { teacher: t, student: s, common: teacherTokenizer.vocabularySize };
}
