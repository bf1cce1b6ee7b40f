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
import { readTokenizerAt } from "../../formats/open_model.ts";
import { checkShapedModel, readShapeFile } from "../../formats/shape_file.ts";
import { alignedData, type AlignedTeacher, matchTokens } from "./aligned_teacher.ts";
import { modelIdentity } from "./identity.ts";
import { type PrivilegedTeacher, privilegedTeacher } from "./privileged_teacher.ts";
import { closeModels, type OpenModels, openModels, withRows } from "./open_models.ts";
import { Model, type ModelOptions, type OpenedFiles, type WeightStorage } from "./models.ts";
import { trainingSets } from "../recipe/data_sets.ts";
import { ON_POLICY, type Recipe, type TeacherMemberRecipe } from "../recipe/recipe.ts";
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
import { cacheField, cacheOf, servedTeachers, teachersBySample, teachersOf } from "../recipe/teachers.ts";

/** A recipe's inputs, checked and loaded; weights are still on disk. */
export interface PreparedRun {
  readonly recipe: Recipe;
  /** The first of its teachers; the student itself, where that is its own, or where the teacher is behind a server. */
  readonly teacher: Model;
  /** All of them, in the recipe's order, likewise. */
  readonly teachers: readonly Model[];
  readonly student: Model;
  readonly tokenizer: TextTokenizer;
  readonly template: ChatTemplate | undefined;
  /** Present where teacher and student have heads of different sizes for one vocabulary: only its rows take part. */
  readonly padding?: { readonly teacher: number; readonly student: number; readonly common: number };
  /** Where the teacher has a tokenizer of its own; `tokenizer` and `template` are then the student's. */
  readonly aligned?: AlignedTeacher;
  /** Where the teacher is told more than the student. */
  readonly privileged?: PrivilegedTeacher;
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

/** What turns text into tokens of a model. */
export interface ModelText {
  readonly tokenizer: TextTokenizer;
  readonly template: ChatTemplate | undefined;
  /** Tokens with which the model ends a text, besides those of the tokenizer: what its generation_config.json names. */
  readonly endTokens: readonly number[];
}

/** A tokenizer with its chat template, read from a model, or from where its tokenizer is said to be. */
export async function openTokenizer(model: Pick<Model, "source" | "config" | "path">): Promise<ModelText> {
  const files = await model.source.tokenizer();
  const { bosToken, eosTokens, vocabularySize } = model.config;
  const path = files.where ?? model.path;
  const isFolder = files.where === undefined
    ? model.source.kind === "huggingface"
    : files.originals !== undefined;
  const file = files.sentencePieceModel ? "tokenizer.model" : "tokenizer.json";
  const where = isFolder ? join(path, file) : path;
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
        where: path,
        hint: files.where === undefined
          ? "The tokenizer belongs to another model: put the right tokenizer.json into the folder."
          : `The tokenizer belongs to another model than ${model.path}: name the right one.`,
      },
    );
  }
  // A folder's template may stand in tokenizer_config.json, where it is found and named as standing there.
  const jinja = isFolder ? files.originals?.get("chat_template.jinja") : files.chatTemplate;
  const template = ChatTemplate.fromConfig(files.tokenizerConfig, {
    where: path,
    ...(jinja === undefined ? {} : { jinja }),
    ...(isFolder ? {} : { jinjaWhere: `${path} (tokenizer.chat_template)` }),
  });
  const named = [files.generationConfig?.eos_token_id].flat();
  const endTokens = named.filter((id): id is number =>
    typeof id === "number" && Number.isInteger(id) && id >= 0 && id < vocabularySize
  );
  return { tokenizer, template, endTokens };
}

/**
 * The tokenizer of the first teacher. That of one behind a server is the student's.
 *
 * @throws {InputError} it is nowhere to be found, naming the field that says where it is
 */
async function openTeacherTokenizer(
  { teacher }: Recipe,
  { student, teachers: [first] }: OpenModels,
): Promise<ModelText> {
  const [{ server, tokenizer }] = teachersOf(teacher) as [TeacherMemberRecipe];
  if (server) return await openTokenizer(student);
  const field = teacher.teachers ? "teacher.teachers.0.tokenizer" : "teacher.tokenizer";
  try {
    return await openTokenizer(first!);
  } catch (error) {
    if (!(error instanceof InputError) || first === student || tokenizer !== undefined) throw error;
    const { where } = error;
    throw new InputError(where === undefined ? error.message : error.message.slice(where.length + 2), {
      ...(where === undefined ? {} : { where }),
      hint: `${error.hint ?? ""} Or name the folder or GGUF file that has the teacher's in ${field}.`.trim(),
      cause: error,
    });
  }
}

/**
 * Compares the tokenizers of teachers behind servers with the student's, as far as they are here.
 *
 * @throws {InputError} one is another
 */
async function compareServedTokenizers(
  { teacher }: Recipe,
  student: Model,
  own: TextTokenizer,
): Promise<void> {
  for (const [i, { server, tokenizer, name }] of teachersOf(teacher).entries()) {
    if (!server || tokenizer === undefined) continue;
    const source = { ...student.source, tokenizer: () => readTokenizerAt(tokenizer) };
    const its = await openTokenizer({ path: tokenizer, source, config: student.config });
    const difference = vocabularyDifference(its.tokenizer, own);
    if (!difference) continue;
    const which = teacher.teachers ? `the teacher ${name}` : "the teacher";
    throw new InputError(
      `${which} behind the server and the student have different vocabularies: ${difference}`,
      {
        where: `recipe teacher${teacher.teachers ? `.teachers.${i}` : ""}.tokenizer`,
        hint:
          "Train a student with this tokenizer. A teacher with another one must be here: name it in teacher.model, with teacher.align.",
      },
    );
  }
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
  let models = await openModels(recipe, () => openStudent(recipe, begun, families), families);
  let dataSets: SampleSets | undefined;
  try {
    // Of a teacher behind a server no more than its head is here.
    const { align } = recipe.teacher;
    const [{ server }] = teachersOf(recipe.teacher) as [TeacherMemberRecipe];
    const ofTeacher = await openTeacherTokenizer(recipe, models);
    const isOne = recipe.student.model === "teacher" || server || models.teachers[0] === models.student;
    const ofStudent = isOne ? ofTeacher : await openTokenizer(models.student);
    await compareServedTokenizers(recipe, models.student, ofStudent.tokenizer);
    const { tokenizer, template } = align ? ofStudent : ofTeacher;
    const padding = align
      ? undefined
      : await compareVocabularies(recipe, models, ofTeacher.tokenizer, ofStudent.tokenizer);
    if (padding) models = withRows(models, padding.common);
    const { student, teachers } = models;
    const teacher = teachers[0]!;
    const longest = Math.min(...teachers.map(({ config }) => config.contextLength));
    // A teacher with tokens of its own has its own limit.
    const positions = align ? Infinity : longest;
    if (recipe.data.contextLength > Math.min(positions, student.config.contextLength)) {
      throw new InputError(
        `data.contextLength is ${recipe.data.contextLength}; the models were trained for ${longest} (teacher) and ${student.config.contextLength} (student) positions`,
        { where: "recipe", hint: "Lower data.contextLength." },
      );
    }
    const sets = await openSampleSets(
      recipe.data,
      {
        tokenizer,
        ...(template ? { template } : {}),
        ...(recipe.teacher.privileged ? { privileged: true } : {}),
      },
      access,
      align && {
        ...{ tokenizer: ofTeacher.tokenizer, align, contextLength: teacher.config.contextLength },
        ...(ofTeacher.template ? { template: ofTeacher.template } : {}),
      },
    );
    dataSets = sets;
    const drawn = drawnSets(sets.train);
    const samples = drawn.flatMap((set) => set.samples);
    checkSources(recipe, samples, drawn);
    checkStreamed(recipe, drawn);
    const all = [...samples, ...sets.heldOut.flatMap((set) => set.samples)];
    checkTags(recipe, all);
    const sizes = {
      ...{ rows: student.config.vocabularySize, teacherRows: teacher.config.vocabularySize },
      vocabulary: align?.vocabulary,
    };
    const aligned: AlignedTeacher | undefined = align && {
      ...ofTeacher,
      ...matchTokens(tokenizer, ofTeacher.tokenizer, sizes),
      data: alignedData(all),
    };
    return {
      recipe,
      ...{ teacher, teachers, student },
      tokenizer,
      template,
      ...(padding ? { padding } : {}),
      ...(aligned ? { aligned } : {}),
      ...(recipe.teacher.privileged
        ? { privileged: privilegedTeacher(recipe, all, teacher.config.contextLength) }
        : {}),
      sets,
      train: samples,
      heldOut: sets.heldOut.flatMap((set) => set.samples),
      trainRows: drawn.flatMap((set) => set.rows),
      heldOutRows: sets.heldOut.flatMap((set) => set.rows),
      trainReport: joinedReport(drawn.map((set) => set.report)),
      heldOutReport: joinedReport(sets.heldOut.map((set) => set.report)),
      // Ids of a teacher with a tokenizer of its own mean nothing to the student.
      stopTokens: stopTokens(tokenizer, recipe.data.endToken, [
        ...(align ? [] : [...ofTeacher.endTokens, ...ofTeacher.tokenizer.eosTokens]),
        ...ofStudent.endTokens,
        ...ofStudent.tokenizer.eosTokens,
      ]),
      close() {
        sets.close();
        closeModels(models);
      },
    };
  } catch (error) {
    dataSets?.close();
    closeModels(models);
    throw error;
  }
}

/** A loss that counts samples of one source has to find some. */
function checkSources(
  { objective, data, train }: Recipe,
  samples: readonly EncodedSample[],
  sets: readonly TrainingSamples[],
): void {
  const there = new Set(samples.flatMap(({ origin }) => origin ?? []));
  for (const { streamed } of sets) streamed?.origins.forEach((origin) => there.add(origin));
  // What the student will write.
  if (train.onPolicy) there.add(ON_POLICY);
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

/** Faulty rows that are named. */
const MOST_NAMED = 10;

/** Where rows choose their teacher, each has to name one that there is. */
function checkTags({ teacher: { combine, teachers = [] } }: Recipe, samples: readonly EncodedSample[]): void {
  if (combine !== "tag") return;
  const names = teachers.map(({ name }) => name!);
  const wrong = samples.filter(({ teacher }) => teacher === undefined || !names.includes(teacher));
  if (wrong.length === 0) return;
  const lines = wrong.slice(0, MOST_NAMED).map(({ source: { file, line }, teacher }) =>
    `${file}:${line}: ${teacher === undefined ? "names none" : `names ${JSON.stringify(teacher)}`}`
  );
  if (wrong.length > lines.length) lines.push(`and ${wrong.length - lines.length} more`);
  const count = wrong.length === 1 ? "1 sample names" : `${wrong.length} samples name`;
  throw new InputError([`${count} no teacher that there is:`, ...lines].join("\n  "), {
    where: "recipe teacher.combine",
    hint: `with combine: tag each row has a member "teacher", one of: ${
      names.map((name) => JSON.stringify(name)).join(", ")
    }`,
  });
}

/** A cache holds a row for each token, so that samples have to be known before. */
function checkStreamed({ teacher }: Recipe, sets: readonly TrainingSamples[]): void {
  if (sets.every(({ streamed }) => !streamed)) return;
  if (teachersBySample(teacher) > 0) {
    throw new InputError(
      "each sample has a teacher of its own, and the training data stay on the disk: all samples must be known before",
      { where: "recipe teacher.combine", hint: "Set data.streaming: false, or data.limit." },
    );
  }
  if (teacher.align) {
    throw new InputError(
      "a teacher with a tokenizer of its own needs all samples in memory, since its sizes are planned from them, and the training data " +
        "stay on the disk",
      {
        where: "recipe teacher.align",
        hint: "Set data.streaming: false, or data.limit.",
      },
    );
  }
  if (teacher.privileged) {
    throw new InputError(
      "a teacher that is told more than the student needs all samples in memory, and the training data stay on the disk",
      { where: "recipe teacher.privileged", hint: "Set data.streaming: false, or data.limit." },
    );
  }
  const kept = teachersOf(teacher).findIndex((_, i) => cacheOf(teacher, i));
  if (kept < 0) return;
  throw new InputError(
    "a cached teacher needs all samples in memory, and the training data stay on the disk",
    {
      where: `recipe ${cacheField(teacher, kept)}`,
      hint:
        "Take a teacher that is there while the student learns, or set data.streaming: false, or data.limit.",
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

/** Where a text of this model ends: its end tokens, what the recipe puts after a text, and what else models name. */
export function stopTokens(
  tokenizer: TextTokenizer,
  endToken: Recipe["data"]["endToken"],
  others: readonly number[] = [],
): number[] {
  const stop = new Set([...tokenizer.eosTokens, ...others]);
  if (typeof endToken === "number") stop.add(endToken);
  // A BOS in the middle begins another text, so this one is over.
  if (tokenizer.bosToken !== undefined) stop.add(tokenizer.bosToken);
  return [...stop];
}

/**
 * Losses compare rows of logits, so each id must mean the same token. Heads may have more rows than there are tokens: where one has more than
 * the other, these take no part in either, since no token stands for them.
 */
async function compareVocabularies(
  { student: { model }, teacher }: Recipe,
  { teachers: all, student }: OpenModels,
  tokenizer: TextTokenizer,
  studentTokenizer: TextTokenizer,
): Promise<PreparedRun["padding"]> {
  const [first, ...others] = all;
  const own = model === "teacher" ? first : student;
  const sizes = all.map(({ config }) => config.vocabularySize);
  // Nobody can look at the tokenizer of a teacher behind a server here.
  const served = new Set(servedTeachers(teacher).map(({ index }) => all[index]));
  for (const other of new Set([...others, own])) {
    if (other === first || (other !== own && served.has(other))) continue;
    const its = other === student ? studentTokenizer : (await openTokenizer(other!)).tokenizer;
    const difference = vocabularyDifference(tokenizer, its);
    if (!difference) continue;
    const which = other === student
      ? teacher.teachers ? "the first teacher and the student" : "teacher and student"
      : `the first teacher and ${teacher.teachers![1 + others.indexOf(other!)]!.name}`;
    throw new InputError(`${which} have different vocabularies: ${difference}`, {
      where: other!.path,
      hint:
        `To let ${tokenizer.where} teach ${studentTokenizer.where} by groups of tokens that stand for the same bytes, say so: ` +
        "teacher.align: {by: bytes}, with a loss such as universal-logit-groups. All other losses over logits need one vocabulary: choose " +
        "models of one family, or cut a student from the teacher (student: {model: teacher, layers: [...]}).",
    });
  }
  return headPadding(sizes, student, tokenizer);
}

/** Heads of different sizes for one vocabulary. */
function headPadding(
  sizes: readonly number[],
  student: Model,
  tokenizer: TextTokenizer,
): PreparedRun["padding"] {
  const s = student.config.vocabularySize;
  const t = sizes.find((size) => size !== s) ?? s;
  return t === s ? undefined : { teacher: t, student: s, common: tokenizer.vocabularySize };
}
